"""What a run will take: tokens, optimizer steps and memory, by formulae from its settings and sizes alone."""
