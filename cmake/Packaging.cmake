# What `cmake --install` puts where: the library, the command, the header, what pkg-config and
# find_package(loopfast) need, the manual page, the completions and the guard's systemd units.
include(CMakePackageConfigHelpers)

set(loopfast_package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/loopfast)

if(NOT TARGET loopfast)
    return()
endif()
# By these names `loopfast run` preloads the library, with $LIB in the place of the middle: only the loader of
# glibc knows what that stands for (one of these; nothing where a shell has taken it for a variable of its own).
# Programs of another libc find nothing there, and start without the library instead of failing on it.
foreach(lib . lib lib64 ${CMAKE_LIBRARY_ARCHITECTURE})
    if(lib STREQUAL CMAKE_LIBRARY_ARCHITECTURE)
        set(lib lib/${lib})
    endif()
    file(MAKE_DIRECTORY ${PROJECT_BINARY_DIR}/loopfast-preload/${lib})
    file(RELATIVE_PATH loopfast_from_there ${PROJECT_BINARY_DIR}/loopfast-preload/${lib} ${PROJECT_BINARY_DIR})
    file(CREATE_LINK ${loopfast_from_there}libloopfast.so.0
         ${PROJECT_BINARY_DIR}/loopfast-preload/${lib}/libloopfast.so SYMBOLIC)
endforeach()
install(DIRECTORY ${PROJECT_BINARY_DIR}/loopfast-preload DESTINATION ${CMAKE_INSTALL_LIBDIR})

install(TARGETS loopfast EXPORT loopfastTargets
        LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
        INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(FILES ${PROJECT_SOURCE_DIR}/include/loopfast.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(EXPORT loopfastTargets NAMESPACE loopfast:: DESTINATION ${loopfast_package_dir})

configure_package_config_file(${PROJECT_SOURCE_DIR}/cmake/loopfastConfig.cmake.in
    ${PROJECT_BINARY_DIR}/loopfastConfig.cmake INSTALL_DESTINATION ${loopfast_package_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/loopfastConfigVersion.cmake
    COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/loopfastConfig.cmake ${PROJECT_BINARY_DIR}/loopfastConfigVersion.cmake
        DESTINATION ${loopfast_package_dir})

# pkg-config files are relocatable when their directories are given relative to the file itself.
file(RELATIVE_PATH loopfast_prefix_from_pc
     /prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig /prefix)
configure_file(${PROJECT_SOURCE_DIR}/cmake/loopfast.pc.in ${PROJECT_BINARY_DIR}/loopfast.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/loopfast.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

if(TARGET loopfast-winsock)
    install(TARGETS loopfast-winsock EXPORT loopfastTargets
            LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
            INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/loopfast/winsock)
    install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/loopfast DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
    configure_file(${PROJECT_SOURCE_DIR}/cmake/loopfast-winsock.pc.in ${PROJECT_BINARY_DIR}/loopfast-winsock.pc @ONLY)
    install(FILES ${PROJECT_BINARY_DIR}/loopfast-winsock.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
endif()
if(TARGET loopfast_cli)
    install(TARGETS loopfast_cli RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
    install(FILES ${PROJECT_SOURCE_DIR}/docs/man/loopfast.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
    install(FILES ${PROJECT_SOURCE_DIR}/src/cli/completion/loopfast.bash
            DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions RENAME loopfast)
    install(FILES ${PROJECT_SOURCE_DIR}/src/cli/completion/loopfast.zsh
            DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/site-functions RENAME _loopfast)
    install(FILES ${PROJECT_SOURCE_DIR}/src/cli/completion/loopfast.fish
            DESTINATION ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d RENAME loopfast.fish)
    # Not below the prefix's lib directory of the architecture: units are found in lib/systemd.
    foreach(unit loopfast-guard.service loopfast-guard@.service)
        configure_file(${PROJECT_SOURCE_DIR}/packaging/${unit}.in ${PROJECT_BINARY_DIR}/packaging/${unit} @ONLY)
        install(FILES ${PROJECT_BINARY_DIR}/packaging/${unit} DESTINATION lib/systemd/system)
    endforeach()
endif()
