"""The kinds of methods. Each kind's ``base.py`` is its interface; its machinery lies in small files beside it."""
