"""Values of several sites, scanners and manufacturers on one scale, with the error of the step."""
