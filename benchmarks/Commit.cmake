# Writes HEADER: the commit of SOURCE, marked if the tree differs from it.
cmake_minimum_required(VERSION 3.22)
execute_process(COMMAND git describe --always --dirty --abbrev=12
  WORKING_DIRECTORY ${SOURCE} OUTPUT_VARIABLE commit
  OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
file(CONFIGURE OUTPUT ${HEADER}
  CONTENT "#define LLM_COMMIT \"@commit@\"\n" @ONLY)
