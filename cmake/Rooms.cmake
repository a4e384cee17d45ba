# One static library per room. What a room links is what it may include: the link lines are the walls.
include_guard()

# fulmar_room(NAME
#   SOURCES file...       of the room
#   ROOMS room...         the rooms below that it uses
#   LIBS library...       foreign libraries
#   PCH asio              its sources start from the precompiled headers of Asio
#   TESTS file...         make NAME_test, linked with the room
#   TEST_LIBS library...  what the tests need besides (fulmar_test_support)
#   TEST_LABELS label...  see fulmar_tests())
function(fulmar_room name)
  cmake_parse_arguments(ROOM "" "PCH" "SOURCES;ROOMS;LIBS;TESTS;TEST_LIBS;TEST_LABELS" ${ARGN})
  fulmar_no_leftovers(${name} "${ROOM_UNPARSED_ARGUMENTS}")
  set(reach ${name})
  foreach(room IN LISTS ROOM_ROOMS)
    if(NOT TARGET fulmar_${room})
      message(FATAL_ERROR "room ${name} uses room ${room}, which is not below it (see the order in src/CMakeLists.txt)")
    endif()
    get_property(below GLOBAL PROPERTY FULMAR_REACH_${room})
    list(APPEND reach ${below})
  endforeach()
  list(REMOVE_DUPLICATES reach)
  set_property(GLOBAL APPEND PROPERTY FULMAR_ROOMS ${name})
  set_property(GLOBAL PROPERTY FULMAR_REACH_${name} ${reach})

  set(target fulmar_${name})
  add_library(${target} STATIC ${ROOM_SOURCES})
  target_include_directories(${target} PUBLIC ${PROJECT_SOURCE_DIR}/include ${PROJECT_SOURCE_DIR}/src)
  list(TRANSFORM ROOM_ROOMS PREPEND fulmar_)
  target_link_libraries(${target} PUBLIC ${ROOM_ROOMS} ${ROOM_LIBS})
  set_property(TARGET ${target} PROPERTY FULMAR_LIBS "${ROOM_LIBS}")
  if(ROOM_PCH)
    fulmar_use_pch(${target} ${ROOM_PCH})
  endif()
  if(FULMAR_TESTS AND ROOM_TESTS)
    fulmar_tests(${name}_test SOURCES ${ROOM_TESTS} LIBS ${target} ${ROOM_TEST_LIBS} LABELS ${ROOM_TEST_LABELS} PCH ${ROOM_PCH})
  endif()
endfunction()

# fulmar_tests(NAME SOURCES file... LIBS library... [PCH asio] [LABELS label...] [WHOLE]): a GoogleTest program in tests/ of the
# build; ctest knows its tests one by one. Labels:
#   concurrent   several threads: `./dev check` runs these under ThreadSanitizer too
#   integration  needs a real broker
# With WHOLE the program is one test of ctest, for those that start something dear once for all their cases. It counts as
# skipped when it prints a line that begins with SKIPPED WHOLE.
function(fulmar_tests name)
  cmake_parse_arguments(T "WHOLE" "PCH" "SOURCES;LIBS;LABELS" ${ARGN})
  fulmar_no_leftovers(${name} "${T_UNPARSED_ARGUMENTS}")
  add_executable(${name} ${T_SOURCES})
  target_link_libraries(${name} PRIVATE ${T_LIBS} GTest::gmock GTest::gtest_main)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  if(T_PCH)
    fulmar_use_pch(${name} ${T_PCH}_test)
  else()
    fulmar_use_pch(${name} test)
  endif()
  set(properties TIMEOUT 120)
  if(T_LABELS)
    string(REPLACE ";" "\\;" labels "${T_LABELS}")
    list(APPEND properties LABELS "${labels}")
  endif()
  if(T_WHOLE)
    add_test(NAME ${name} COMMAND ${name})
    set_tests_properties(${name} PROPERTIES TIMEOUT 600 LABELS "${T_LABELS}" SKIP_REGULAR_EXPRESSION "SKIPPED WHOLE")
  else()
    gtest_discover_tests(${name} NO_PRETTY_VALUES DISCOVERY_TIMEOUT 60 PROPERTIES ${properties})
  endif()
  foreach(label IN LISTS T_LABELS)
    if(NOT TARGET ${label}_tests)
      add_custom_target(${label}_tests)  # ninja concurrent_tests: just these programs
    endif()
    add_dependencies(${label}_tests ${name})
  endforeach()
endfunction()

# fulmar_program(NAME SOURCES file... LIBS library...): a program in bin/ that is installed.
function(fulmar_program name)
  cmake_parse_arguments(P "" "" "SOURCES;LIBS" ${ARGN})
  fulmar_no_leftovers(${name} "${P_UNPARSED_ARGUMENTS}")
  add_executable(${name} ${P_SOURCES})
  target_link_libraries(${name} PRIVATE ${P_LIBS})
  install(TARGETS ${name} RUNTIME COMPONENT programs)
endfunction()

# fulmar_fuzzer(NAME SOURCES file... LIBS library...): fuzz_NAME in fuzz/ of the build, when FULMAR_FUZZ is on.
function(fulmar_fuzzer name)
  cmake_parse_arguments(F "" "" "SOURCES;LIBS" ${ARGN})
  fulmar_no_leftovers(fuzz_${name} "${F_UNPARSED_ARGUMENTS}")
  if(NOT FULMAR_FUZZ)
    return()
  endif()
  add_executable(fuzz_${name} ${F_SOURCES})
  target_link_libraries(fuzz_${name} PRIVATE ${F_LIBS})
  target_link_options(fuzz_${name} PRIVATE -fsanitize=fuzzer)
  set_target_properties(fuzz_${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/fuzz)
  if(NOT TARGET fuzzers)
    add_custom_target(fuzzers)
  endif()
  add_dependencies(fuzzers fuzz_${name})
endfunction()

# One set of precompiled headers per kind, shared by all its users.
set(FULMAR_PCH_asio <boost/asio/io_context.hpp> <boost/asio/ip/tcp.hpp> <boost/asio/steady_timer.hpp>
    <boost/asio/local/stream_protocol.hpp> <boost/asio/post.hpp> <boost/asio/write.hpp> <chrono> <functional> <memory>
    <string> <vector>)
set(FULMAR_PCH_LIBS_asio Boost::headers Threads::Threads)
set(FULMAR_PCH_test <gmock/gmock.h> <gtest/gtest.h> <chrono> <functional> <memory> <string> <vector>)
set(FULMAR_PCH_LIBS_test GTest::gmock)
set(FULMAR_PCH_asio_test ${FULMAR_PCH_asio} ${FULMAR_PCH_test})
set(FULMAR_PCH_LIBS_asio_test ${FULMAR_PCH_LIBS_asio} ${FULMAR_PCH_LIBS_test})

function(fulmar_use_pch target kind)
  if(NOT TARGET fulmar_pch_${kind})
    set(source ${PROJECT_BINARY_DIR}/pch/${kind}.cpp)
    if(NOT EXISTS ${source})
      file(WRITE ${source} "")
    endif()
    add_library(fulmar_pch_${kind} OBJECT ${source})
    target_link_libraries(fulmar_pch_${kind} PRIVATE ${FULMAR_PCH_LIBS_${kind}})
    target_precompile_headers(fulmar_pch_${kind} PRIVATE ${FULMAR_PCH_${kind}})
    fulmar_pch_for_ccache(fulmar_pch_${kind})
    fulmar_optimize_tests_less(fulmar_pch_${kind} ${kind})
  endif()
  target_precompile_headers(${target} REUSE_FROM fulmar_pch_${kind})
  fulmar_pch_for_ccache(${target})
  fulmar_optimize_tests_less(${target} ${kind})
  get_target_property(type ${target} TYPE)
  if(type STREQUAL EXECUTABLE)
    target_compile_options(${target} PRIVATE -fPIC)  # as the header was compiled; -fPIE would not match it
  endif()
endfunction()

# What a test does itself is seldom slow, but most of what is compiled are tests: a third to a half of their time is saved.
# The rooms that they test are optimized as ever.
function(fulmar_optimize_tests_less target kind)
  if(kind MATCHES "test$")
    target_compile_options(${target} PRIVATE $<IF:$<CONFIG:Release>,-O1,-O0>)
  endif()
endfunction()

# Without these ccache cannot tell whether a precompiled header changed, and passes every compilation through.
function(fulmar_pch_for_ccache target)
  target_compile_options(${target} PRIVATE
    $<$<CXX_COMPILER_ID:GNU>:-fpch-preprocess>
    "$<$<CXX_COMPILER_ID:Clang>:SHELL:-Xclang -fno-pch-timestamp>")
endfunction()

function(fulmar_no_leftovers name arguments)
  if(arguments)
    message(FATAL_ERROR "${name}: what is \"${arguments}\"? (see cmake/Rooms.cmake)")
  endif()
endfunction()

# fulmar_walls_test(): every #include "room/..." must lie within the reach of the including room's link lines.
function(fulmar_walls_test)
  get_property(rooms GLOBAL PROPERTY FULMAR_ROOMS)
  set(plan "")
  foreach(room IN LISTS rooms)
    get_property(reach GLOBAL PROPERTY FULMAR_REACH_${room})
    string(APPEND plan "set(reach_${room} ${reach})\n")
  endforeach()
  file(WRITE ${PROJECT_BINARY_DIR}/walls.cmake "set(rooms ${rooms})\n${plan}")
  add_test(NAME walls COMMAND ${CMAKE_COMMAND} -D PLAN=${PROJECT_BINARY_DIR}/walls.cmake -D ROOT=${PROJECT_SOURCE_DIR}
                              -P ${PROJECT_SOURCE_DIR}/cmake/walls.cmake)
endfunction()
