# LOOPFAST_SANITIZE=address | undefined | address,undefined | thread: everything, tests included, is built
# with it. A finding ends the program, so that a test cannot pass with one.
set(LOOPFAST_SANITIZE "" CACHE STRING "Sanitizers to build with, as -fsanitize= takes them; empty for none")
set_property(CACHE LOOPFAST_SANITIZE PROPERTY STRINGS "" address undefined address,undefined thread)

if(LOOPFAST_SANITIZE)
    if(NOT LOOPFAST_SANITIZE MATCHES "^(address|undefined|address,undefined|thread)$")
        message(FATAL_ERROR "LOOPFAST_SANITIZE is '${LOOPFAST_SANITIZE}'; "
                "expected address, undefined, 'address,undefined' or thread")
    endif()
    add_compile_options(-fsanitize=${LOOPFAST_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer -g)
    add_link_options(-fsanitize=${LOOPFAST_SANITIZE})
    add_compile_definitions(LOOPFAST_SANITIZED)
    if(LOOPFAST_SANITIZE STREQUAL "thread")
        # g++ 12 warns that ThreadSanitizer does not model stand-alone fences; arming has one on purpose.
        add_compile_options($<$<COMPILE_LANG_AND_ID:CXX,GNU>:-Wno-tsan>)
    endif()
endif()
