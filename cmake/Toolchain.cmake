# What every target is compiled with.
set(CMAKE_CXX_STANDARD 23)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "Release, Debug or RelWithDebInfo" FORCE)
endif()
# -O2: -O3 makes the programs a third larger and no measured path faster. -g1: a profile or a crash in the field names
# functions and lines, for a few per cent of file size.
set(CMAKE_CXX_FLAGS_RELEASE "-O2 -g1 -DNDEBUG")
set(FULMAR_DEBUG_FLAGS "-Og -g -D_GLIBCXX_ASSERTIONS" CACHE STRING "Compiler flags of Debug builds; presets have their own")
set(CMAKE_CXX_FLAGS_DEBUG "${FULMAR_DEBUG_FLAGS}")

add_compile_options(-Wall -Wextra -Wshadow -Wconversion -Wnon-virtual-dtor -Woverloaded-virtual -Werror=return-type)
# g++ 12 sees bounds broken inside its own std::string where strings are added up (GCC bug 105329).
if(CMAKE_CXX_COMPILER_ID STREQUAL GNU AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  add_compile_options(-Wno-array-bounds -Wno-stringop-overflow -Wno-stringop-overread -Wno-restrict)
endif()

find_program(FULMAR_CCACHE ccache)
if(FULMAR_CCACHE)
  # The sloppiness is what precompiled headers need; relative paths let every clone share one cache.
  set(CMAKE_CXX_COMPILER_LAUNCHER
      ${CMAKE_COMMAND} -E env CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime
      CCACHE_BASEDIR=${PROJECT_SOURCE_DIR} CCACHE_NOHASHDIR=1 ${FULMAR_CCACHE})
endif()

find_program(FULMAR_MOLD mold)
if(FULMAR_MOLD)
  add_link_options(-fuse-ld=mold)
endif()

set(FULMAR_SANITIZE "" CACHE STRING "Sanitizers: address,undefined or thread or fuzzer-no-link,address,undefined")
if(FULMAR_SANITIZE)
  add_compile_options(-fsanitize=${FULMAR_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${FULMAR_SANITIZE})
  if(FULMAR_SANITIZE MATCHES thread)
    add_compile_definitions(BOOST_ASIO_DISABLE_FENCED_BLOCK)  # TSan does not model atomic_thread_fence
  endif()
endif()
