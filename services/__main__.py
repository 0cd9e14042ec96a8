"""``python -m services`` is the ``millstream`` command."""

from services.cli import main

main()
