# Compiler flags: language, warnings and sanitizers for everything we compile (target ca_flags), and the ISA of each kernel file.
set(CMAKE_C_STANDARD 11)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_C_EXTENSIONS OFF)
set(CMAKE_C_VISIBILITY_PRESET hidden)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_C_FLAGS_RELEASE "-O2 -g")

add_library(ca_flags INTERFACE)
target_compile_definitions(ca_flags INTERFACE _DEFAULT_SOURCE _POSIX_C_SOURCE=200809L)
target_compile_options(ca_flags INTERFACE -ffp-contract=off -fno-math-errno
    -Wall -Wextra -Wpedantic -Wconversion -Wsign-conversion -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wold-style-definition
    -Wvla -Wundef -Wcast-qual -Wwrite-strings -Wpointer-arith -Wformat=2)

# Warnings are errors with the compilers that the project is checked with; a newer one may know warnings that we have not seen, and
# gcc's flow and conversion warnings misjudge sanitized code.
if(NOT CA_SANITIZE AND (CMAKE_C_COMPILER_ID STREQUAL GNU AND CMAKE_C_COMPILER_VERSION VERSION_LESS 13
   OR CMAKE_C_COMPILER_ID STREQUAL Clang AND CMAKE_C_COMPILER_VERSION VERSION_LESS 15))
    set(known_compiler ON)
endif()
option(CA_WERROR "Warnings are errors" ${known_compiler})
if(CA_WERROR)
    target_compile_options(ca_flags INTERFACE -Werror)
endif()

if(CA_SANITIZE OR CA_FUZZ)
    set(sanitize -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer)
    target_compile_options(ca_flags INTERFACE ${sanitize})
    target_link_options(ca_flags INTERFACE ${sanitize})
endif()
if(CA_FUZZ)
    target_compile_options(ca_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()

# A kernel's file name ends with its ISA; everything else is the baseline of the architecture. Kernels of other processors leave the
# list. The scalar kernels are the reference and are kept as written.
function(ca_select_kernels list)
    set(isa_flags_avx2 -mavx2 -mfma -mf16c -ffp-contract=fast)
    set(isa_flags_avx512 ${isa_flags_avx2} -mavx512f -mavx512bw -mavx512dq -mavx512vl)
    set(isa_flags_avx512bf16 ${isa_flags_avx512} -mavx512bf16)
    set(isa_flags_avx512vnni ${isa_flags_avx512} -mavx512vnni)
    set(isa_flags_neon -ffp-contract=fast)
    set(isa_flags_neonbf16 ${isa_flags_neon} -march=armv8.2-a+bf16)
    set(isa_flags_neondot ${isa_flags_neon} -march=armv8.2-a+dotprod)
    if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
        set(foreign neon)
    elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64)$")
        set(foreign avx)
    else()
        set(foreign "(neon|avx)")
    endif()
    list(FILTER ${list} EXCLUDE REGEX "/(kern|int8)_${foreign}[^/]*$")
    set(${list} ${${list}} PARENT_SCOPE)
    foreach(file IN LISTS ${list})
        if(NOT file MATCHES "/src/kern/")
            continue()
        endif()
        set(flags -O3)
        if(CA_SANITIZE OR CA_FUZZ) # register tiles unrolled for the sanitizers take minutes to compile
            set(flags -O1)
        endif()
        if(file MATCHES "scalar\\.c$")
            list(APPEND flags -fno-tree-vectorize)
        elseif(file MATCHES "(avx512bf16|avx512vnni|avx512|avx2|neonbf16|neondot|neon)\\.c$")
            list(APPEND flags ${isa_flags_${CMAKE_MATCH_1}})
        endif()
        if(file MATCHES "/int8_") # all of them round alike
            list(APPEND flags -ffp-contract=off)
        endif()
        set_source_files_properties(${file} PROPERTIES COMPILE_OPTIONS "${flags}")
    endforeach()
endfunction()
