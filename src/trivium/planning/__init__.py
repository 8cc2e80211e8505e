"""What a run would cost: arithmetic, data, days, money, energy and memory, before anything is started.

This package lies above ``trivium.lessons``: :mod:`trivium.planning.scaling` shows its fit on a lesson's page."""
