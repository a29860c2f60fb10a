"""Imports the packages that lie in a folder of their own name, before pytest sees the folders.

pytest names a test module after its path, such as `servicekit.tests.test_tls`, and would take the folder `servicekit`
for the package.
"""

import gateway  # noqa: F401
import servicekit  # noqa: F401
