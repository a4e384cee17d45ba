# What `cmake --install` puts in place. Component `library`: the public headers, and for find_package and pkg-config
#   fulmar::fulmar   the client, telemetry and the spool: one archive of the rooms behind them
#   fulmar::queue    the work queue, find_package(fulmar COMPONENTS queue): apart, since it brings SQLite, libpq and yaml-cpp
# Component `programs`: fulmar and fulmard (see fulmar_program), whose rooms are in no archive.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

# fulmar_archive(TARGET NAME OUTPUT ROOMS room...): the archive lib<OUTPUT>.a of these rooms, fulmar::<NAME> to others.
function(fulmar_archive target name output)
  cmake_parse_arguments(A "" "" "ROOMS" ${ARGN})
  add_library(${target} STATIC)
  add_library(fulmar::${name} ALIAS ${target})
  foreach(room IN LISTS A_ROOMS)
    target_sources(${target} PRIVATE $<TARGET_OBJECTS:fulmar_${room}>)
    get_target_property(libs fulmar_${room} FULMAR_LIBS)
    if(libs)
      target_link_libraries(${target} PRIVATE ${libs})
    endif()
  endforeach()
  set_target_properties(${target} PROPERTIES OUTPUT_NAME ${output} EXPORT_NAME ${name} LINKER_LANGUAGE CXX)
  target_compile_features(${target} PUBLIC cxx_std_23)
  target_include_directories(${target} PUBLIC
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include>
    $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
endfunction()
fulmar_archive(fulmar_library fulmar fulmar ROOMS base outbox mqtt net spool client telemetry)  # `fulmar` is the command line
fulmar_archive(fulmar_queue_library queue fulmar-queue ROOMS queue)
target_link_libraries(fulmar_queue_library PUBLIC fulmar_library)

set(FULMAR_PACKAGE_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/fulmar)
install(TARGETS fulmar_library EXPORT fulmar-targets ARCHIVE COMPONENT library)
install(TARGETS fulmar_queue_library EXPORT fulmar-queue-targets ARCHIVE COMPONENT library)
install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/fulmar TYPE INCLUDE COMPONENT library)
install(EXPORT fulmar-targets NAMESPACE fulmar:: DESTINATION ${FULMAR_PACKAGE_DIR} COMPONENT library)
install(EXPORT fulmar-queue-targets NAMESPACE fulmar:: DESTINATION ${FULMAR_PACKAGE_DIR} COMPONENT library)
configure_package_config_file(${PROJECT_SOURCE_DIR}/cmake/fulmar-config.cmake.in
  ${PROJECT_BINARY_DIR}/fulmar-config.cmake INSTALL_DESTINATION ${FULMAR_PACKAGE_DIR})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/fulmar-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/fulmar-config.cmake ${PROJECT_BINARY_DIR}/fulmar-config-version.cmake
  DESTINATION ${FULMAR_PACKAGE_DIR} COMPONENT library)

# pkg-config; relative to its own place, so that `cmake --install --prefix` and moved trees work.
if(IS_ABSOLUTE ${CMAKE_INSTALL_LIBDIR} OR IS_ABSOLUTE ${CMAKE_INSTALL_INCLUDEDIR})
  message(FATAL_ERROR "CMAKE_INSTALL_LIBDIR and CMAKE_INSTALL_INCLUDEDIR have to be relative to the prefix; give e.g. lib/NAME")
endif()
file(RELATIVE_PATH FULMAR_PC_UP /prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig /prefix)
string(REGEX REPLACE "/$" "" FULMAR_PC_UP "${FULMAR_PC_UP}")
foreach(name fulmar fulmar-queue)
  configure_file(${PROJECT_SOURCE_DIR}/packaging/${name}.pc.in ${PROJECT_BINARY_DIR}/${name}.pc @ONLY)
  install(FILES ${PROJECT_BINARY_DIR}/${name}.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig COMPONENT library)
endforeach()
install(FILES ${PROJECT_SOURCE_DIR}/LICENSE TYPE DOC COMPONENT library)
