# sbit_scale_timeouts(): at the end of each folder of tests. The environment's SBIT_TEST_TIMEOUT_FACTOR, a whole
# number, lengthens their time limits on a machine that is slow or emulated, and with them mpirun's, which are a
# little shorter. Ctest's own --timeout does nothing for a test that has a limit.
function(sbit_scale_timeouts)
    set(factor "$ENV{SBIT_TEST_TIMEOUT_FACTOR}")
    if(factor STREQUAL "")
        return()
    elseif(NOT factor MATCHES "^[1-9][0-9]*$")
        message(FATAL_ERROR "SBIT_TEST_TIMEOUT_FACTOR must be a whole number, not \"${factor}\"")
    endif()
    get_property(tests DIRECTORY PROPERTY TESTS)
    foreach(test ${tests})
        get_property(limit TEST ${test} PROPERTY TIMEOUT)
        math(EXPR longer "${limit} * ${factor}")
        set_property(TEST ${test} PROPERTY TIMEOUT ${longer})
        get_property(environment TEST ${test} PROPERTY ENVIRONMENT)
        if(environment MATCHES "MPIEXEC_TIMEOUT=([0-9]+)")
            math(EXPR longer "${CMAKE_MATCH_1} * ${factor}")
            string(REPLACE "${CMAKE_MATCH_0}" "MPIEXEC_TIMEOUT=${longer}" environment
                "${environment}")
            set_property(TEST ${test} PROPERTY ENVIRONMENT "${environment}")
        endif()
    endforeach()
endfunction()
