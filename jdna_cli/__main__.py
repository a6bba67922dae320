"""`python -m jdna_cli`: what `accelerate launch -m jdna_cli` starts."""

from jdna_cli.cli.app import main

if __name__ == "__main__":
    main()
