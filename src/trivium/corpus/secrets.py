"""Keys, tokens and passwords of computer systems. A value begins only where none of its own characters stands before
it, and no repetition has two ways to match: the search takes time in proportion to the text, whatever the text is."""

from __future__ import annotations

import re

SECRET_MARKS = ("AKIA", "ASIA", "gh", "glpat-", "xox", "AIza", "k_", "sk-", "hf_", "npm_", "eyJ", "PRIVATE KEY", "assw",
                "ASSW", "ecret", "ECRET", "oken", "OKEN", "key", "KEY", "Key")
"""A text without any of these holds none of the secrets."""

SECRET = re.compile(r"""
    (?<![\w-]) (?P<value>
        (?:AKIA|ASIA)[0-9A-Z]{16}(?![0-9A-Za-z])                          # Amazon
      | gh[pousr]_[A-Za-z0-9]{36,}+ | github_pat_\w{60,}+ | glpat-[\w-]{20,}+
      | xox[abeoprs]-[\w-]{10,}+                                       # Slack
      | AIza[\w-]{35}(?![\w-])                                            # Google
      | [srp]k_(?:live|test)_[A-Za-z0-9]{16,}+                         # Stripe
      | sk-(?:ant-|proj-)?[A-Za-z0-9][\w-]{19,}+                       # model providers
      | hf_[A-Za-z0-9]{30,}+ | npm_[A-Za-z0-9]{36}
      | eyJ[\w-]{10,}+\.eyJ[\w-]{10,}+\.[\w-]{10,}+           # JSON web tokens
    )""", re.VERBOSE | re.ASCII)
KEY_BLOCK = re.compile(
    r"(?P<value>-----BEGIN (?:[A-Z]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----(?:[\w+/=\s:,.()\\]|-(?!----)){32,16384}+"
    r"-----END (?:[A-Z]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----)", re.ASCII)
GIVEN_SECRET = re.compile(
    r"""
    (?i: (?<![A-Za-z])
         (?:password|passwd|secret|(?:api|access|auth|secret|private)[_-]?(?:key|token)|token)
         ["']?[ ]{0,3}[:=][ ]{0,3}["']? )
    (?P<value> (?=[^\s"'<>()&;,$]{0,63}\d)(?=[^\s"'<>()&;,$]{0,63}[A-Za-z])
        [^\s"'<>()&;,$]{7,63}[^\s"'<>()&;,$.] )""", re.VERBOSE | re.ASCII)
"""What follows a name such as ``api_key =``, when it has letters and digits."""
