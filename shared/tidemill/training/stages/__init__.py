"""A training run, stage by stage: each stage keeps its output and a record, so a run that was killed anywhere goes on where it was."""
