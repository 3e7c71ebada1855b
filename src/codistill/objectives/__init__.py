"""Ways of teaching: from the students' outputs and the labels to named losses."""
