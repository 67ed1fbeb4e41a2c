"""A study: several arms, each trained with several seeds at one budget, and what can be said of their differences."""
