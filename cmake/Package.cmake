# What `cmake --install` puts in place. Component `library`: fulmar::fulmar as others use it, the public headers and one
# archive of the rooms behind them, for find_package and for pkg-config. Component `programs`: fulmar and fulmard (see
# fulmar_program), whose rooms are not in the archive.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(FULMAR_LIBRARY_ROOMS base outbox mqtt net spool client telemetry queue)
add_library(fulmar_library STATIC)  # `fulmar` is the command line
add_library(fulmar::fulmar ALIAS fulmar_library)
foreach(room IN LISTS FULMAR_LIBRARY_ROOMS)
  target_sources(fulmar_library PRIVATE $<TARGET_OBJECTS:fulmar_${room}>)
  get_target_property(libs fulmar_${room} FULMAR_LIBS)
  if(libs)
    target_link_libraries(fulmar_library PRIVATE ${libs})
  endif()
endforeach()
set_target_properties(fulmar_library PROPERTIES OUTPUT_NAME fulmar EXPORT_NAME fulmar LINKER_LANGUAGE CXX)
target_compile_features(fulmar_library PUBLIC cxx_std_23)
target_include_directories(fulmar_library PUBLIC
  $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include>
  $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)

set(FULMAR_PACKAGE_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/fulmar)
install(TARGETS fulmar_library EXPORT fulmar-targets ARCHIVE COMPONENT library)
install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/fulmar TYPE INCLUDE COMPONENT library)
install(EXPORT fulmar-targets NAMESPACE fulmar:: DESTINATION ${FULMAR_PACKAGE_DIR} COMPONENT library)
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
configure_file(${PROJECT_SOURCE_DIR}/packaging/fulmar.pc.in ${PROJECT_BINARY_DIR}/fulmar.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/fulmar.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig COMPONENT library)
install(FILES ${PROJECT_SOURCE_DIR}/LICENSE TYPE DOC COMPONENT library)
