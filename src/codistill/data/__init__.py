"""From a source to batches of images and labels."""
