"""Why a score is what it is: the values on the way to a logit, and what leaving parts out changes.

`explain` computes an `Explanation`; `text` prints it, and `page` writes it as HTML.
"""
