"""What one worker computes: instances, descents, Hessians. NumPy, or any array-API library."""
