"""``python -m trivium.cli``, for launchers such as ``torchrun``."""

from trivium.cli.app import main

main()
