"""How long a build takes and how much memory the builder needs: numbers, never a verdict."""
