"""What is read of a manual page."""

from __future__ import annotations

from benchmarks.learning.roff import prose

PAGE = r"""'\" t
.\" Copyright somebody
.TH signal 7 2023-02-05 "Linux"
.SH NAME
signal \- overview of \fIall\fP signals
.SH DESCRIPTION
Each has a
.IR disposition ,
see
.BR sigaction (2)
or \f[B]signal\f[R](2).
.\" not to be read
.PP
It\(aqs \[lq]safe\[rq]; write \e0 in
.BI "some file" name
.EX
int main(void);
.EE
and then.
.TS
l l.
a	b
.TE
.TP
.B \-\-all
Everything.
.IP \[bu] 3
A point\&.
.UR https://example.org
The page
.UE .
.SH SEE ALSO
.BR kill (1)
.SH NOTES
Last words.
"""


def test_prose_is_paragraphs_without_markup_listings_and_tables() -> None:
    assert prose(PAGE).splitlines() == [
        "signal - overview of all signals",
        "Each has a disposition, see sigaction(2) or signal(2).",
        "It's “safe”; write \\0 in some filename and then.",
        "--all Everything.",
        "A point. The page .",
        "Last words.",
    ]


def test_a_page_that_refers_to_another_or_is_of_other_macros_has_none() -> None:
    assert prose(".so man7/signal.7\n") == ""
    assert prose(".Dd March 2023\n.Sh NAME\n.Nm mg\n") == ""
