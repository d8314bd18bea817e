# Two images from one file:
#   docker build -t plp-container-image-builder .
#   docker build -t plp-container-image-publisher --target publisher .
# docs/images.md tells more: proxies, the classic builder, other versions of BuildKit.

ARG BUILDKIT_VERSION=0.32.2

FROM moby/buildkit:v${BUILDKIT_VERSION}-rootless AS buildkit


# What both images have: certificates, Python, and an unprivileged user.
FROM debian:trixie-slim AS python
RUN set -eu; \
    export DEBIAN_FRONTEND=noninteractive; \
    # Neither manuals nor translations.
    printf 'path-exclude=/usr/share/%s/*\n' doc man locale info lintian bug \
        > /etc/dpkg/dpkg.cfg.d/small; \
    printf 'path-include=/usr/share/doc/*/copyright\n' >> /etc/dpkg/dpkg.cfg.d/small; \
    apt-get update -q; \
    apt-get install -qy --no-install-recommends ca-certificates python3; \
    # Bytecode that does not look at the source's date: a date may change, the content does not.
    rm -rf /usr/lib/python3*/ensurepip /usr/lib/python3*/pydoc_data /usr/lib/python3*/test; \
    PYTHONHASHSEED=0 python3 -m compileall -q -f --invalidation-mode unchecked-hash \
        /usr/lib/python3*/ /usr/share/python3/; \
    # Nothing that runs with more rights than its caller, nothing that tells the time of the build.
    find / -xdev -type f -perm /6000 -exec chmod ug-s {} +; \
    find / -xdev -type d -perm -0002 ! -path /tmp ! -path /var/tmp -exec chmod o-w {} +; \
    rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/* /var/lib/dpkg/*-old /root/.cache; \
    echo 'plp:x:1000:' >> /etc/group; \
    echo 'plp:x:1000:1000::/home/plp:/usr/sbin/nologin' >> /etc/passwd; \
    echo 'plp:100000:65536' > /etc/subuid; \
    echo 'plp:100000:65536' > /etc/subgid; \
    rm -f /etc/*-; \
    # The days of last change are the day of the build.
    sed -i 's/^\([^:]*:[^:]*\):[0-9]*:/\1::/' /etc/shadow; \
    install -d -o 1000 -g 1000 -m 0755 /home/plp


# Our own code and what it needs, with hashes, in an environment without pip.
FROM python AS venv
WORKDIR /src
RUN apt-get update -q && apt-get install -qy --no-install-recommends python3-venv
COPY requirements/run.txt requirements/build.txt requirements/
RUN --mount=type=secret,id=pip-conf,target=/etc/pip.conf \
    --mount=type=secret,id=ca,target=/run/ca.pem \
    set -eu; \
    [ ! -s /run/ca.pem ] || export PIP_CERT=/run/ca.pem; \
    export PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore; \
    python3 -m venv --without-pip /opt/plp; \
    python3 -m venv /opt/build; \
    /opt/build/bin/pip install -q --require-hashes --no-deps -r requirements/build.txt; \
    /opt/build/bin/pip --python /opt/plp/bin/python install -q --no-compile \
        --require-hashes --no-deps --only-binary :all: -r requirements/run.txt
COPY pyproject.toml README.md LICENSE LICENSES.md ./
COPY plp_builder plp_builder
COPY publisher publisher
RUN set -eu; \
    export PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore; \
    /opt/build/bin/pip wheel -q --no-build-isolation --no-deps --no-index -w dist .; \
    /opt/build/bin/pip --python /opt/plp/bin/python install -q --no-compile --no-index --no-deps \
        dist/*.whl; \
    # The commands that pip makes import re, and site looks for what is not here: 10 ms.
    for module in plp_builder publisher; do \
        printf '#!/opt/plp/bin/python -IS\nimport sys\n\nsys.path.append("%s")\nfrom %s.program import run\n\nrun()\n' \
            /opt/plp/lib/python3*/site-packages "$module" > "/opt/plp/bin/plp-${module#plp_}"; \
    done; \
    rm -rf /opt/plp/bin/[Aa]ctivate* /opt/plp/lib/python3*/site-packages/*.dist-info/direct_url.json; \
    PYTHONHASHSEED=0 python3 -m compileall -q -f --invalidation-mode unchecked-hash /opt/plp/lib


FROM python AS publisher
RUN set -eu; \
    export DEBIAN_FRONTEND=noninteractive; \
    apt-get update -q; \
    apt-get install -qy --no-install-recommends skopeo; \
    # skopeo neither makes networks for containers nor checks signatures here: 70 MB.
    dpkg --purge --force-depends containernetworking-plugins iptables \
        libip4tc2 libip6tc2 libmnl0 libnetfilter-conntrack3 libnfnetlink0 libnftnl11 libxtables12 \
        dirmngr gnupg gnupg-l10n gpg gpg-agent gpgconf gpgsm pinentry-curses libksba8 \
        libnpth0t64; \
    find / -xdev -type f -perm /6000 -exec chmod ug-s {} +; \
    rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/* /var/lib/dpkg/*-old /etc/*- \
        /etc/dpkg/dpkg.cfg.d/small
COPY --from=venv /opt/plp /opt/plp
ENV PATH=/opt/plp/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin \
    LANG=C.UTF-8
USER 1000:1000
WORKDIR /
STOPSIGNAL SIGTERM
ENTRYPOINT ["/opt/plp/bin/python", "-IS", "/opt/plp/bin/plp-publisher"]
ARG VERSION=0.1.0
ARG REVISION=""
ARG SOURCE=""
LABEL org.opencontainers.image.title="plp-container-image-publisher" \
      org.opencontainers.image.description="Pushes an image archive to a registry, with tags made from commit, branch, tag or pull request" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}"


FROM python AS builder
RUN set -eu; \
    export DEBIAN_FRONTEND=noninteractive; \
    apt-get update -q; \
    # containerd, in BuildKit, unpacks layers with igzip of isal where it is there.
    apt-get install -qy --no-install-recommends \
        fuse-overlayfs git isal libcap2-bin openssh-client uidmap; \
    # File capabilities instead of setuid: the helpers get these two rights and no other.
    find / -xdev -type f -perm /6000 -exec chmod ug-s {} +; \
    setcap cap_setuid+ep /usr/bin/newuidmap; \
    setcap cap_setgid+ep /usr/bin/newgidmap; \
    apt-get purge -qy libcap2-bin; \
    # Only commands of git that nothing here calls are written in Perl: 45 MB.
    dpkg --purge --force-depends liberror-perl perl libperl5.40 perl-modules-5.40; \
    rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/* /var/lib/dpkg/*-old /etc/*- \
        /etc/dpkg/dpkg.cfg.d/small; \
    install -d -m 0755 /source /build
# The emulators of other platforms, where the image of BuildKit brings them.
COPY --from=buildkit /usr/bin/buildctl /usr/bin/buildkitd /usr/bin/buildkit-runc \
    /usr/bin/buildkit-qemu-a[ar]* /usr/bin/buildkit-qemu-x* /usr/bin/rootlesskit /usr/local/bin/
COPY --from=venv /opt/plp /opt/plp
ENV PATH=/opt/plp/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin \
    LANG=C.UTF-8 \
    TMPDIR=/var/tmp
# The daemon's state: overlay mounts need a file system below them that is none itself.
VOLUME /var/tmp
WORKDIR /
STOPSIGNAL SIGTERM
ENTRYPOINT ["/opt/plp/bin/python", "-IS", "/opt/plp/bin/plp-builder"]
ARG VERSION=0.1.0
ARG REVISION=""
ARG SOURCE=""
LABEL org.opencontainers.image.title="plp-container-image-builder" \
      org.opencontainers.image.description="A source directory in, one OCI image archive out: rootless BuildKit without a Docker daemon" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}"
