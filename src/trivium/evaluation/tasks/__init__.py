"""Tasks: a YAML file says what is asked and how it is judged, and files of rows hold the questions.

Each kind of task is one class in one file: its fields are the settings of the YAML file, and its method ``examine``
examines a model. :mod:`trivium.evaluation.tasks.load` reads the YAML files.
"""
