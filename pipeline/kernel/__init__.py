"""What one worker computes: instances, descents, Hessians. NumPy only."""
