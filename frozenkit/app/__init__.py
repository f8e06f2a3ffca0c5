"""The doors: the command line, the doctor, the launcher of JupyterLab, and the report on a folder of images."""
