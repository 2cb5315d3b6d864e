"""Jobs that an operator starts: rebuild, repartition, playback."""
