"""BERT in numpy: it turns a text's tokens into one vector."""
