# One static library per room; what a room links is what it may include, so the link lines are the walls.

# fulmar_room(NAME SOURCES ... ROOMS rooms-below... LIBS libraries... TESTS test-sources...)
function(fulmar_room name)
  cmake_parse_arguments(ROOM "" "" "SOURCES;ROOMS;LIBS;TESTS" ${ARGN})
  set(target fulmar_${name})
  add_library(${target} STATIC ${ROOM_SOURCES})
  target_include_directories(${target} PUBLIC ${PROJECT_SOURCE_DIR}/include ${PROJECT_SOURCE_DIR}/src)
  list(TRANSFORM ROOM_ROOMS PREPEND fulmar_)
  target_link_libraries(${target} PUBLIC ${ROOM_ROOMS} ${ROOM_LIBS})
  if(FULMAR_TESTS AND ROOM_TESTS)
    fulmar_tests(${name}_test SOURCES ${ROOM_TESTS} LIBS ${target})
  endif()
endfunction()

# fulmar_tests(NAME SOURCES ... LIBS ...): a GoogleTest program whose tests ctest knows one by one.
function(fulmar_tests name)
  cmake_parse_arguments(T "" "" "SOURCES;LIBS" ${ARGN})
  add_executable(${name} ${T_SOURCES})
  target_link_libraries(${name} PRIVATE ${T_LIBS} GTest::gmock GTest::gtest_main)
  gtest_discover_tests(${name} DISCOVERY_TIMEOUT 60 PROPERTIES TIMEOUT 120)
endfunction()

# fulmar_program(NAME SOURCES ... LIBS ...)
function(fulmar_program name)
  cmake_parse_arguments(P "" "" "SOURCES;LIBS" ${ARGN})
  add_executable(${name} ${P_SOURCES})
  target_link_libraries(${name} PRIVATE ${P_LIBS})
endfunction()
