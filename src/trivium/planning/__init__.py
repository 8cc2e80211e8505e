"""What a run would cost: arithmetic, data, days, money, energy and memory, before anything is started."""
