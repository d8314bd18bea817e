# <Dockerfile>.dockerignore takes the place of .dockerignore, it is not added to it.
FROM scratch
COPY . /context/
