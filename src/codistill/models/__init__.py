"""A stem and students on it, what they cost, and how they are kept in files."""
