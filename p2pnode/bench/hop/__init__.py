"""Where the time of a hop goes: real nodes that stamp its moments, and what joins the stamps."""
