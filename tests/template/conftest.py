import pytest

from qcord.core.template import Template
from qcord.template.parametric import parametric_template


@pytest.fixture(scope="session")
def template() -> Template:
    """The parametric template at its usual 0.5 mm."""
    return parametric_template()
