"""From a config to a run folder: the loop, the step, checkpoints."""
