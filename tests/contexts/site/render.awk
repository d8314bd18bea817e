# The first line is the title; an empty line ends a paragraph.
function escaped(text) {
    gsub(/&/, "\\&amp;", text)
    gsub(/</, "\\&lt;", text)
    return text
}
NR == 1 { printf "<!doctype html>\n<title>%s</title>\n<h1>%s</h1>\n", escaped($0), escaped($0); next }
/^$/ { if (open) print "</p>"; open = 0; next }
{ if (!open) print "<p>"; open = 1; print escaped($0) }
END { if (open) print "</p>" }
