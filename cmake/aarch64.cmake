# Toolchain file: builds for a 64-bit Raspberry Pi on another Debian machine. The tests labelled aarch64 build
# the kernels with it and need the compiler only, gcc-aarch64-linux-gnu with libc6-dev-arm64-cross. The preset
# "aarch64" builds the whole program; the libraries for that come from Debian's multiarch, once:
#
#   dpkg --add-architecture arm64 && apt-get update
#   apt-get install gcc-aarch64-linux-gnu libopenmpi-dev:arm64 libprotobuf-c-dev:arm64 \
#       liblz4-dev:arm64 libxxhash-dev:arm64 libjansson-dev:arm64 libpcre2-dev:arm64 \
#       libutf8proc-dev:arm64 libopenblas-openmp-dev:arm64 libcmocka-dev:arm64 \
#       protobuf-c-compiler
#
# On a Pi itself the preset "release" is all that is needed.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)

set(CMAKE_LIBRARY_ARCHITECTURE aarch64-linux-gnu)
set(ENV{PKG_CONFIG_LIBDIR} /usr/lib/aarch64-linux-gnu/pkgconfig:/usr/share/pkgconfig)
# The MPI compiler wrapper found on the path describes the host's library; name the target's.
set(MPI_C_SKIP_MPICXX ON)
set(MPI_C_COMPILER MPI_C_COMPILER-NOTFOUND CACHE FILEPATH "no wrapper for the target")
set(MPI_C_HEADER_DIR /usr/lib/aarch64-linux-gnu/openmpi/include CACHE PATH "mpi.h of the target")
set(MPI_C_LIB_NAMES mpi CACHE STRING "libraries of the target")
set(MPI_mpi_LIBRARY /usr/lib/aarch64-linux-gnu/libmpi.so CACHE FILEPATH "libmpi of the target")

set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
find_program(QEMU_AARCH64 NAMES qemu-aarch64 qemu-aarch64-static)
if(QEMU_AARCH64)
    set(CMAKE_CROSSCOMPILING_EMULATOR ${QEMU_AARCH64})
endif()
