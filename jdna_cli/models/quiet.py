"""transformers, which reports on the screen what jdna tells in its own words: told not to."""

import transformers

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

__all__ = ["transformers"]
