# Read by CMake right after llama.cpp's project() line. llama-cpp-python forces llama.cpp's command-line helpers on;
# the library doesn't use them, and they are more than half of what would be compiled.
set(LLAMA_BUILD_COMMON OFF CACHE BOOL "" FORCE)
