"""The config files of the paper's authors: read, never run, and translated into settings."""
