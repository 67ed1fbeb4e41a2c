"""A plugin of pytest, for a rehearsal: what only training needs cannot be imported, as on a machine that lacks it."""

import sys

sys.modules.update(dict.fromkeys(["deepspeed", "webdataset", "submitit"]))  # None: importing it is an error
