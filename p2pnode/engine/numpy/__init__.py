"""The float32 reference: numpy on expanded weights; also where no faster library loads."""
