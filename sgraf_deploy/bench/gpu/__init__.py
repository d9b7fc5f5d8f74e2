"""`sgraf-deploy bench gpu`: everything that only a GPU can show, in steps that can be resumed."""
