"""The embedded default: a small made-up town with a known truth, for every stage to be tried and checked on."""
