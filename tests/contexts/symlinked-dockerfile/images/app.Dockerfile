# The Dockerfile of the context is a link to this one: fine as long as it stays in the source.
FROM scratch
COPY hello.txt /hello.txt
