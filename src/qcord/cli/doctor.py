"""``qcord doctor``."""

from qcord.cli.progress import plain


def command() -> int:
    """Look whether this machine is fit for the work, and say what to do if not."""
    from qcord.pipeline.doctor import doctor

    findings = doctor()
    for finding in findings:
        plain().print(f"{'ok     ' if finding.good else 'PROBLEM'} {finding.name:14s} {finding.detail}")
    return int(any(not f.good for f in findings))
