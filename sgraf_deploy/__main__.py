"""`python -m sgraf_deploy` is the command `sgraf-deploy`."""

from __future__ import annotations

from sgraf_deploy.cli import main

if __name__ == "__main__":
    main()
