"""The record of a run: what was measured, in memory that does not grow with its length."""

from gradguard.record.history import History as History
from gradguard.record.history import Points as Points
from gradguard.record.host import HostReader as HostReader
