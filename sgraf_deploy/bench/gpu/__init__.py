"""`sgraf-deploy bench gpu`: measures everything that needs a GPU, in steps that can be resumed."""
