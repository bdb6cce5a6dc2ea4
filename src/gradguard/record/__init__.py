"""The record of a run: what was measured, in memory and in files that do not grow with its length."""

from gradguard.record.event import Event as Event
from gradguard.record.history import History as History
from gradguard.record.history import Points as Points
from gradguard.record.history import rows as rows
from gradguard.record.host import HostReader as HostReader
from gradguard.record.keys import grad_norm_key as grad_norm_key
from gradguard.record.manifest import Manifest as Manifest
from gradguard.record.manifest import now as now
from gradguard.record.manifest import replace_file as replace_file
from gradguard.record.manifest import versions as versions
from gradguard.record.plain import event_from_plain as event_from_plain
from gradguard.record.plain import event_to_plain as event_to_plain
from gradguard.record.plain import finding_from_plain as finding_from_plain
from gradguard.record.plain import finding_to_plain as finding_to_plain
from gradguard.record.plain import layout_from_plain as layout_from_plain
from gradguard.record.plain import layout_to_plain as layout_to_plain
from gradguard.record.reader import Run as Run
from gradguard.record.reader import find_record as find_record
from gradguard.record.reader import read as read
from gradguard.record.writer import RunWriter as RunWriter
from gradguard.record.writer import check_folder as check_folder
