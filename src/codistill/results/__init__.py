"""What finished runs say: reads run folders only, and answers without importing torch."""
